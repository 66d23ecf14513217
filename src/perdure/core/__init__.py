"""The pure heart: events, commands, the machine that matches them. No I/O, clock, randomness, asyncio or logging."""

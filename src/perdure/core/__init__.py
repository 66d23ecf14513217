"""The pure heart: events, commands, and the machine that matches them. No I/O, clock, randomness, asyncio or logging."""

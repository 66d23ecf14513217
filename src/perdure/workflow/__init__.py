"""What runs inside a workflow: the deterministic loop, the definitions, and the functions that asyncio lacks."""

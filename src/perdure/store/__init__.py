"""Where journals live: the port (`protocol.py`), the stores that implement it, and the rules that they share."""

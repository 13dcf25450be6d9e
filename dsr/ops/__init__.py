"""The compiled operations and what stands between them and Python: arguments, threads, memory."""

"""What a person sees. Pages draw and never compute; every one of them passes through shell.py."""

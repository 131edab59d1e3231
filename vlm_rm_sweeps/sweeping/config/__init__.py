"""What is asked: sweep files, prompts, screening files."""

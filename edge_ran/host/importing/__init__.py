"""Networks that other scripts trained, brought in without running anything of their files."""

"""The pure core: tensors in, tensors out. Imports torch and numpy alone; no files, no services, no clocks."""

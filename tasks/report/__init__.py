"""What a person looks at: the page, its plots and tables."""

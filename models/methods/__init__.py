"""Methods that train sparsely: each is a handful of parts that the training loop knows, never a loop of its own."""

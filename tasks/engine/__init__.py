"""How every task runs: one step with its report, under the lock of its run, with its progress."""

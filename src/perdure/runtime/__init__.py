"""What drives executions: worker, driver, step runner, committer, and the engine and client that users hold."""

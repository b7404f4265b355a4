"""From budgets and samples to verdicts."""

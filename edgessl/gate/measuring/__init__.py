"""What happens in a round: processes, scenarios, items, meters."""

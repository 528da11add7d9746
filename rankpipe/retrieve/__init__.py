"""First stages: each finds documents for a query in an index it has built, or fuses others that do."""

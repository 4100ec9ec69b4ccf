"""Real Kafka clients, each a command that sends what a plan says: BROKERS PLAN."""

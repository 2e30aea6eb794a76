"""The queue trigger: what all brokers share, and each of them."""

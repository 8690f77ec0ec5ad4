"""What is kept in Redis. The only package of the broker that imports redis."""

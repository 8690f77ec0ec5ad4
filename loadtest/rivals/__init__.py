"""What openline is compared with."""

"""What damage, disks and second processes do to a command."""

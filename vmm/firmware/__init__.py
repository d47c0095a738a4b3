"""What happens before the guest: POST, option ROMs, loading."""

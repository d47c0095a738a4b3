"""What a ROM and the monitor share: the batch queue, the doorbell, the guest's clock."""

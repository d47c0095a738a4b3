"""Guest code: fetched, measured, counted block by block, or carried out for the guest."""

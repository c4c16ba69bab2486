"""Steps, traces and scans that the operators share."""

"""What several tests share: processes that start fast, installations, waits for conditions."""

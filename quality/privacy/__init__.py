"""Is a synthetic set private: copies of patients, membership, and controls that say what the tests would have seen."""

//! What one contact's events mean for the measures (owned by the outcomes builder).

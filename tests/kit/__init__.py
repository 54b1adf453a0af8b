"""What several test files share: fixtures, projects, sessions, and processes that fork."""

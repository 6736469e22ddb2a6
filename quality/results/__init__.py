"""What was measured, as frozen values that go to JSON and back: numbers and names, never a pixel or a path."""

"""What tests of several rooms share; a test imports from here and from no other test."""

import pytest

pytest.register_assert_rewrite("tests.support")  # what they assert says what it found, as in a test

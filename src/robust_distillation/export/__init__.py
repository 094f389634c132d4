"""What came out, in forms that others read without this project."""

"""What a student is taught with: the views of a cache, and what its teachers say of them."""

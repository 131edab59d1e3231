"""What people say about states and videos: the page, the store of their labels, and their agreement."""

"""What many tests share: made slides, stores, features and reports; commands in processes, and killing them."""

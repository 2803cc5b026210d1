"""What happens, in order: the two stages of G2L and the commands around them."""

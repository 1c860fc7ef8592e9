"""What is done to pictures before and after they are drawn: sizes, masks, surroundings, edges. No network is asked."""

"""What a training left, made readable: groups of answers, signs of gaming, curves, one page."""

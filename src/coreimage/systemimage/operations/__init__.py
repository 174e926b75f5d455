"""Operations: what people do to channels and to the images in them, a transaction each."""

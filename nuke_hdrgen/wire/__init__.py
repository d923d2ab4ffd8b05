"""The codec, message types, job states, errors and limits; bytes in, messages out, no I/O."""

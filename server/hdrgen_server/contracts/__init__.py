"""Torch-free contracts between the rooms: frame, descriptor, request, operator."""

"""Readers and writers: any scan in, masks out."""

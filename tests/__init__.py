"""Tests of medseg."""

"""Shared imagination: do models that learned apart invent alike?"""

"""How much each point of a secondary set helps: values, their errors, and selections made of them.

One sign everywhere: **value > 0 means that adding the point lowers the target loss.**
"""

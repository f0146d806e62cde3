"""A package as a person has it beside modalgate."""

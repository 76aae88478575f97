"""The methods: one Captum attribution class per file."""

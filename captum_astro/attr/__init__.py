"""The methods: one Captum attribution class a file."""

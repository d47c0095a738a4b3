"""From assembly to a checked ROM image: assembler front end, flavours, inspection."""

"""MCP: kubectl as tools for AI agents, at /mcp, and over stdin and stdout for programs that start their servers."""

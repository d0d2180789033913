package main

import (
	"fmt"
	"os"
	"strings"
)

// secretFile is the variable that names a file with the value of a secret, which platforms mount and replace.
func secretFile(env string) string { return env + "_FILE" }

// readSecret reads a value, without the line end that editors leave in files.
func readSecret(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err // it names the file
	}
	value := strings.TrimRight(string(text), "\r\n")
	if value == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return value, nil
}

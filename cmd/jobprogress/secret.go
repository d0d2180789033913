package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// secretFile is the variable that names a file with the value of a secret, which platforms mount and replace.
func secretFile(env string) string { return env + "_FILE" }

// previousSecret is the variable of the one secret that there need not be.
const previousSecret = "JOBPROGRESS_JWT_PREVIOUS_SECRET"

// readSecret reads a value, without the line end that editors leave in files. The file of a previous secret may be empty.
func readSecret(env, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err // it names the file
	}
	value := strings.TrimRight(string(text), "\r\n")
	if strings.HasSuffix(env, "DATABASE_URL") {
		value = strings.TrimSpace(value)
	}
	switch {
	case value == "" && env != previousSecret:
		return "", fmt.Errorf("%s is empty", file)
	case !strings.HasSuffix(env, "DATABASE_URL") && strings.HasPrefix(value, "postgres"):
		return "", fmt.Errorf("%s holds a database URL", file)
	case strings.HasSuffix(env, "DATABASE_URL"):
		err = errors.Join(validateURL(value, file)...)
	}
	return value, err
}

// unread takes the place of what can't be read, so that nothing else is said of it.
const unread = "postgres://unread@localhost/unread"
